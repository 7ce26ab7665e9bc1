"""Images and labels in, from every place and form that they may come in; `trainers.images.read` begins."""
