"""Runs the `latentcli` command for `python -m latentcli`."""

from latentcli.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
