"""The network: its layers and losses, how it is trained on one device or several, and applied."""
