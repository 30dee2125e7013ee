"""The words on screen outside the gallery; settings bring their own help."""

from __future__ import annotations

WORDS = {
    "taste": "Taste",
    "no_taste": "No taste yet. Begin one under New taste.",
    "pick": "Pick and teach",
    "new": "New taste",
    "compare": "Compare",
    "files": "Files and sharing",
    "name": "Name of the taste",
    "model": "Model",
    "model_help": "garden is the small embedded model. Or a .safetensors checkpoint, or a diffusers folder.",
    "prompts": "Prompts, one per line",
    "advanced": "More settings",
    "begin": "Begin",
    "beginning": "The model is being loaded, and the prompts are read…",
    "price": "A first round of 64: ",
    "trouble": "Trouble?",
    "make_report": "Make a report",
    "report": "Copy this for the makers. It holds versions, settings and where it broke, no prompts, no paths.",
    "prompt": "Prompt",
    "strength": "Strength of the LoRA",
    "draw": "Draw before and after",
    "before": "Before",
    "after": "After",
    "rename": "Rename",
    "delete": "Delete this taste",
    "delete_sure": "Yes, delete its pictures, picks and LoRAs; copies of LoRAs in other folders stay",
    "share": "Share",
    "share_help": "One zip: the LoRA, a before/after picture, a card. Prompts, names and picks stay out unless ticked.",
    "with_name": "with the taste's name",
    "with_prompts": "with the prompts",
    "with_picks": "with the picks",
    "make_zip": "Make the zip",
    "pictures": "All pictures and picks as a data set",
    "make_data": "Make the data set",
    "import_help": "Picks on this taste's pictures: picks.jsonl, metadata.jsonl, Label Studio's JSON, or the D3PO "
    "authors' JSON.",
    "import_file": "File of picks",
    "import_who": "Who picked, for the authors' JSON (empty: you, without a name)",
    "import": "Import picks",
    "invite": "Invite",
    "invite_help": "Let others pick in this taste from their own computers. Each person gets a link. Whoever has one "
    "sees pictures, picks, looks back at their own picks, and can do nothing else.",
    "invite_serve": "Let invited people in",
    "invite_serve_help": "At this computer's address, unencrypted: for a network that you trust. Ends with the Studio.",
    "invite_proxy": "Address of a reverse proxy",
    "invite_proxy_help": "Empty without one. With one, such as https://pick.example.org, nobody else gets in.",
    "invite_on": "Invited people come in at {address}",
    "invite_port": "The proxy has to lead to 127.0.0.1:{port}.",
    "invite_off": "Nobody comes in from other computers.",
    "invite_name": "Name",
    "invite_days": "Days for which the link works",
    "invite_make": "Make a link",
    "invite_link": "Link of {name}, shown this once. A new one for the same name ends it.",
    "invite_ended": "The earlier link of {name} has ended.",
    "invite_later": "It works as soon as you let invited people in above.",
    "invite_table": "| Name | Groups | Last here | Link |\n|---|---|---|---|",
    "invite_never": "never",
    "invite_live": "works until {day}",
    "invite_expired": "expired",
    "invite_revoked": "revoked",
    "invite_nobody": "Nobody is invited yet.",
    "invite_whom": "Whose link",
    "invite_revoke": "Revoke it",
    "invite_overlap": "People who see the same group",
    "invite_overlap_help": "More than 1 shows how far people agree, and needs as many times more picks.",
    "invite_set": "Set",
    "others": "Other ways to teach",
    "method_title": "#### Another method for your picks\n"
    "A taste learns from your picks by D3PO, unless you choose another method here. It is kept with the taste, for its "
    "next rounds.",
    "method": "Method",
    "method_kept": "This taste's next round is taught by {method}.",
    "method_open": "Round {n}, which is not finished, goes on as it was begun.",
    "reward_title": "#### Teach by a reward\n"
    "A reward is a program that scores pictures. Your model follows it without any picks of yours. Followed too far, "
    "it ruins pictures, so teaching ends when the model has drifted too far from the original.",
    "reward_ready": "Choose one",
    "reward_written": "Or write one",
    "reward_written_help": "A name or a sum, such as 0.5*warmth + contrast. picks stands for what your picks say.",
    "reward_written_files": " Scorers that you have: clip:FOLDER, pickscore:FOLDER, hpsv2:FOLDER, aesthetic:FOLDER, "
    "picks:FILE.",
    "reward_begin": "Teach by this reward",
    "reward_finish": "Finish the stopped round as it is",
    "reward_begun": "It has begun. How it goes is in the gallery, under Teach; Stop is there too.",
    "reward_finishing": "It will be finished in a moment. How it went is in the gallery, under Teach.",
    "reward_open": "Round {n} was stopped while it learnt from **{what}**. Press Teach in the gallery to go on with "
    "the settings that it was begun with. To finish it as it is needs no reward, so the reward's files may be gone.",
    "your_picks": "your picks",
    "say_title": "#### What do your picks say?\n"
    "A small judge learns from them what you like, in seconds, and predicts picks that it has not seen.",
    "say": "Ask my picks",
    "say_yes": "**It may be used**: choose *What my picks say* above.",
    "say_no": "**It may not be used yet.** So few picks cannot show that it predicts better than chance (50%). Pick in "
    "more groups, or pick by one thing.",
    "bring": "Bring pictures",
    "bring_help": "Pictures that you have already, liked ones and others: a folder that holds *winners* and *losers* "
    "(two files of one name are a pair), a .jsonl file with lines like "
    '`{"prompt": "a lake", "winner": "a.png", "loser": "b.png"}`, '
    "or either of them as a zip. In any other folder of pictures nobody has judged them yet: the gallery shows those "
    "of one prompt two at a time, and you pick the better one. Other prompts are read from a .txt beside a picture, or "
    "from what A1111, Forge and ComfyUI wrote into it.",
    "bring_only": "This page is open to other computers, so only a zip that you upload is taken.",
    "bring_place": "Where they are on this computer",
    "bring_place_help": "The path of a folder, of a .jsonl file or of a zip.",
    "bring_file": "Or upload a zip (or a .jsonl with absolute paths)",
    "bring_zip": "Upload a zip",
    "bring_who": "Who judged them (empty: imported)",
    "bring_button": "Bring them in",
}

METHODS = {
    "d3po": "**d3po** needs picks on pictures drawn here. It makes the steps that led to your favourites likelier. The "
    "best method to begin with.",
    "ddpo": "**ddpo** needs picks on pictures drawn here. Each picture gets a score from them, within its group.",
    "dpok": "**dpok** needs picks on pictures drawn here. It is ddpo with a penalty that keeps it close to your model.",
    "diffusion-dpo": "**diffusion-dpo** needs only finished pictures, in pairs of a better and a worse one. Imported "
    "ones count.",
    "diffusion-kto": "**diffusion-kto** needs only finished pictures, each liked or disliked. Imported ones count.",
    "diffusion-nft": "**diffusion-nft** needs only finished pictures. Imported ones count. It goes on from the last "
    "round, and picks that contradict each other hardly mislead it.",
}
"""What each method needs, in a sentence or two."""

REWARDS = {
    "What my picks say": "picks",
    "Warm colours": "warmth",
    "Cold colours": "-1*warmth",
    "Contrast": "contrast",
    "Smooth and plain": "smooth-compressibility",
    "Busy and detailed": "smooth-incompressibility",
}
"""Rewards that can be chosen, and how each is written."""
