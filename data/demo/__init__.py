"""Generated, gradable questions for the demo."""
