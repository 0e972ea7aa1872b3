"""An experiment: strategies × seeds and their baselines in one folder, resumed by running it again."""
