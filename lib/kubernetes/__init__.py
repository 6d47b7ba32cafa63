"""What macroscope needs from Kubernetes: temporary Dask clusters, an operator, tidying up."""

import warnings

# In each flow's log: kr8s names the versions that were out when it was released, and does no less
# with a later one.
warnings.filterwarnings("ignore", message=r"Kubernetes version \S+ is not supported")
