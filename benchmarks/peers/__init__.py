"""What people would use instead, one file for views in 2D, one for 3D, one for steps."""
