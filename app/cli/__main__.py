"""`python -m app.cli`, as `accelerate launch` starts it."""

from . import main

if __name__ == "__main__":
    main()
