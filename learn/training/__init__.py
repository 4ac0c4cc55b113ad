"""What all trainings by torch share: losses, batches and learning rates, files of tensors."""
