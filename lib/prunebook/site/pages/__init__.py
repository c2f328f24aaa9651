"""The pages that are made, not written: functions of the book, text in, text out."""
