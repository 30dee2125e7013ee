"""LAION's aesthetic head on CLIP embeddings of length 1 (Schuhmann et al. 2022, arXiv 2210.08402, section on subsets by
aesthetics): one linear layer (V1), or five (V2; "linearMSE" without, "reluMSE" with ReLU between them).

Its tensors are in a .safetensors file of their own in the CLIP's folder, or among the model's weights, and are named
`weight` and `bias`, or `layers.<place>.weight` and `layers.<place>.bias`. Dropout and ReLU have places but no tensors,
so the places of the linear layers tell the kind: 0 2 4 6 7 with dropout alone, 0 3 6 9 11 with ReLU too.
"""

from __future__ import annotations

import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import D3POError

PLACES = {(0,): False, (0, 2, 4, 6, 7): False, (0, 3, 6, 9, 11): True}
"""The known places of linear layers, and whether ReLU follows each but the last."""
NAME = re.compile(r"(?:.*\b(?:layers|predictor|linear|head)\.)?(?:(\d+)\.)?(weight|bias)")
OF_CLIP = ("vision_model.", "text_model.")


class AestheticHead:
    """Frozen linear layers, used on the device of the embeddings.

    Args:
        layers: weight (out, in) and bias (out,) of each layer.
        relu: whether ReLU follows each but the last.
    """

    def __init__(self, layers: list[tuple[Tensor, Tensor]], relu: bool) -> None:
        self.layers, self.relu = layers, relu

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Return the scores (B,) of embeddings (B, F)."""
        x = embeddings
        for number, (weight, bias) in enumerate(self.layers):
            x = (x.relu() if self.relu and number else x) @ weight.to(x).T + bias.to(x)
        return x[:, 0]

    @classmethod
    def read(cls, folder: Path, width: int) -> AestheticHead:
        """Read the head from a CLIP's folder, from a file of its own before the model's weights.

        Args:
            folder: the CLIP's.
            width: length F of its embeddings.

        Raises:
            D3POError: there is no head, or one of another form, or for embeddings of another length.
        """
        files = sorted(folder.glob("*.safetensors"), key=lambda path: (path.name.startswith("model"), path.name))
        for path in files:
            tensors = _tensors(path)
            if tensors:
                return cls._of(tensors, path, width)
        pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in (".pt", ".pth")]
        raise D3POError(
            f"{folder} has no aesthetic head"
            + (f" but a pickle ({pickles[0]}), which is never read." if pickles else "."),
            "Save the head's state_dict as safetensors in that folder.",
        )

    @classmethod
    def _of(cls, tensors: dict[tuple[int, str], Tensor], path: Path, width: int) -> AestheticHead:
        places = tuple(sorted({place for place, _ in tensors}))
        if places not in PLACES or any((place, "bias") not in tensors for place in places):
            raise D3POError(
                f"The aesthetic head in {path.name} has layers at {places}, which is no form of LAION's.",
                "Use one linear layer, or LAION's five.",
            )
        if tensors[0, "weight"].shape[1] != width:
            raise D3POError(
                f"The aesthetic head in {path.name} is for embeddings of {tensors[0, 'weight'].shape[1]} numbers, "
                f"and this CLIP's have {width}.",
                "Use the head with the CLIP that it was made for.",
            )
        return cls([(tensors[place, "weight"], tensors[place, "bias"]) for place in places], PLACES[places])


def _tensors(path: Path) -> dict[tuple[int, str], Tensor]:
    """Return the head's tensors in a file by (place, name), in float32; an empty dict if it holds no head."""
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if not name.startswith(OF_CLIP)]  # noqa: SIM118
            known = {name: match for name in names if (match := NAME.fullmatch(name))}
            return {(int(match[1] or 0), match[2]): file.get_tensor(name).float() for name, match in known.items()}
    except (SafetensorError, OSError) as error:
        raise D3POError(f"{path.name} is damaged or no safetensors file ({error}).", "Use another copy.") from error
