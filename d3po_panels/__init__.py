"""The gradio panels and the job queue that the Studio and the web UIs' tab share.

host           what a program that shows the panels provides: models, turns, places for LoRAs
jobs           the job queue: one thread that owns the models and does one job at a time
worker         the gallery's actions, as jobs
drawing        draw what was asked for, and ahead for whoever looks at a taste
training       train a round in turns, and draw what came of it
importing      import images in turns
tabs           the tabs around the gallery
panels         panels that begin, compare, share and report
import_panel   the panel that imports images
other_methods  the panel of other methods, and of rewards
controls       controls made from the core's settings, and the panels' types
tastes         begin, list and delete tastes
zips           unpack a zip that somebody uploads
report         the report for bugs
words          the words on screen
"""
