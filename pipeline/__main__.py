"""The `webtext` command: a damaged installation ends here in one line, not in a traceback."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from pipeline import cli
    except ImportError as error:
        missing = error.name or str(error)
        sys.exit(
            f"webtext: the installation is damaged: {missing} cannot be imported; "
            "run `make setup` or install webtext again"
        )
    except KeyboardInterrupt:
        sys.stderr.write("webtext: interrupted; the same command goes on where it was\n")
        sys.exit(130)
    cli.run()


if __name__ == "__main__":
    main()
