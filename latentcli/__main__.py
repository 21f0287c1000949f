"""Runs the `latentcli` command for `python -m latentcli`."""

from latentcli.cli.start import start

if __name__ == "__main__":
    raise SystemExit(start())
