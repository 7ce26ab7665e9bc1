"""Run directory -> report.html: one self-contained page, one panel per file, `build.py` puts them together."""
