"""`python -m app.cli`, as `accelerate launch` starts it."""

from app.cli import main

if __name__ == "__main__":
    main()
