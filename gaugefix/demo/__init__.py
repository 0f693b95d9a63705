"""What the recipes and ``gaugefix demo`` share: data, small networks, result files. Importing it imports nothing."""
