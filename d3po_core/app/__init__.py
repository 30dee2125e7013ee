"""The use cases that all front ends share: the command line, the Studio, the web UIs' tab and ComfyUI's nodes.

    runs           begin a run, or find it
    run_settings   what a run says of itself: prompts, how it is drawn and trained, the coming round
    sampling       draw groups into a run
    train_round    train a round to its end, a pause or a stop
    reward_request what a round by a reward is begun with, and what a stopped one goes on with
    decisions      what a person decides after a blind check, and a weaker copy of a LoRA
    before_after   images of one prompt without and with a LoRA
    publish        copy a LoRA to where a host lists it
    outcomes       the sentences that say what came out
    cost           what work will take
    memory         what is done where memory runs out

Nothing here knows a host or a page.
"""
