"""The Studio: the whole loop in one page on this computer, without any other program. `d3po studio` opens it."""
