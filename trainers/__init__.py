"""What trains: tasks, models, the loop and its checkpoints. Ray lives in `trainers.run` alone."""
