"""`python -m latentcli` is the same as the `latentcli` command."""

from latentcli.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
