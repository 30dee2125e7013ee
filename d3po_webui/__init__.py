"""D3PO inside AUTOMATIC1111 and the Forge family: a tab around the core, the gallery and the shared panels.

register       gives the host its tab, routes and settings when it starts
host           everything that the hosts do differently
calls          their functions that we call, and whether they are as we call them
queue_host     the web UI as the job queue's host
model          the loaded checkpoint as an `ImageModel`
denoiser       its network as a `Denoiser`
gradients      gradients through its networks: checkpointing, and its VAE
cards          taught LoRAs among the host's cards
tab            the tab
new_taste      the panel that begins a taste
txt2img        reads what txt2img sends
settings       our page among the host's settings
auth           who may use the gallery's routes
"""
