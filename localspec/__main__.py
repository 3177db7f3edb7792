"""The program `localspec`, which is `python -m localspec` too."""

import os
import sys


def main() -> None:
    """Run the command line and leave with its exit code.

    Nothing of it is imported before, so that Ctrl-C while it starts is a sentence, too.
    """
    try:
        from localspec.cli.main import run  # noqa: PLC0415 - see above

        code = run()
    except (KeyboardInterrupt, RuntimeError) as error:
        # Python 3.11 wraps a Ctrl-C in a RuntimeError while it makes a class.
        is_interrupt = isinstance(error.__cause__ or error, KeyboardInterrupt)
        if not is_interrupt or os.environ.get("LOCALSPEC_DEBUG") == "1":
            raise
        sys.stderr.write("localspec: interrupted\n")
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
