"""`python -m localspec` is `localspec`."""

from localspec.cli.main import main

if __name__ == "__main__":
    main()
