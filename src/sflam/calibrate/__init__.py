"""What theory takes as an input, measured with the data path: stability, gradient norms, curvature."""
