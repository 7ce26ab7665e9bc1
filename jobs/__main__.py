"""`python -m jobs` is `highwater`."""

from jobs.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
