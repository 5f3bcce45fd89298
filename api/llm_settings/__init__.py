"""What a workspace decides about its calls to models, and the calls it chose to keep."""
