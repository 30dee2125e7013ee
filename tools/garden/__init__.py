"""Making the embedded model (see d3po_core/embedded/README.md).

| file | what is in it |
|---|---|
| `pictures` | draws garden pictures by rule: the training data |
| `vocabulary` | the tokenizer, and rewordings of captions |
| `train` | the command that runs the stages of training |
| `train_vae`, `train_unet`, `train_classifier` | the stages |
| `training_tools` | what the stages share |
| `measure` | the command that measures the model with its classifier |
"""
