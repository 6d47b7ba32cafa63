"""What macroscope needs from Kubernetes: temporary Dask clusters, an operator, tidying up."""
