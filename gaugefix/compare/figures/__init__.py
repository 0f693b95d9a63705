"""The panels of a report, one file each; every one takes a figure to draw into and what is to be drawn."""
