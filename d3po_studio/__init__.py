"""The Studio: everything in one page on this computer, without any other program. `d3po-studio` opens it.

app         the web server: the gallery's API and files, and the gradio page around them
host        the Studio as the job queue's host, and the model in memory
invite      lets invited people in from other computers, to one taste each
local_only  refuses requests that do not come from the page itself
"""
