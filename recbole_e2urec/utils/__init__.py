"""Files, processes, HTML and the workarounds for RecBole: what every other room uses."""
