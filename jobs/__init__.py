"""What a person asks for: specs, names, run directories, verbs and reports. Imports no torch and no Ray."""
