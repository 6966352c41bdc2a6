"""Sources, features, alignment, session, messages and publishers of tamulag-stream."""
