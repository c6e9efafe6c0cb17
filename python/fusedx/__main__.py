"""``python -m fusedx``."""

from fusedx.cli import main

if __name__ == "__main__":
    main()
