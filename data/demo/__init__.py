"""Generated, gradable questions for the demo: every word of them is written by these modules, none by a data set."""
