"""What every other room uses: files, processes, HTML pages and workarounds for RecBole."""
