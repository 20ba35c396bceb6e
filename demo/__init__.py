"""The steps of the demo, one word each: `python -m demo STEP`; demo.sh lists which steps a demo has. Python's own library only."""
