"""Raw data: IDX files and the download of MNIST. Imports neither TensorFlow nor TFX."""
