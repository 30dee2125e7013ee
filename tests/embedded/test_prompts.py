"""The prompts of the embedded model: they parse back, and the split is balanced."""

from collections import Counter

from d3po_core.embedded import ATTRIBUTES, PROMPTS, parse, split_prompts


def test_prompts_parse_back():
    assert len(PROMPTS) == len(set(PROMPTS)) == 60
    for prompt in PROMPTS:
        attributes = parse(prompt)
        assert f"a {attributes['colour']} {attributes['kind']} {attributes['sky']}" == prompt
    assert parse("At night, a White BELLFLOWER") == {
        "kind": "bellflower",
        "colour": "white",
        "sky": "at night",
    }
    assert parse("a zebra") == {}


def test_split_is_balanced():
    training, held = split_prompts()
    assert (len(training), len(held)) == (44, 16)
    assert set(training) | set(held) == set(PROMPTS)
    for name, values in ATTRIBUTES.items():
        counts = Counter(parse(prompt)[name] for prompt in held)
        assert set(counts) == set(values)
        assert max(counts.values()) - min(counts.values()) <= 1
