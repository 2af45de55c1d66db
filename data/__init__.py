"""LOGS: which model got which question right, in SQL and in files."""
