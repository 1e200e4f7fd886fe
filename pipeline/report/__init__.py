"""What a run is: `facts.gather` counts it, `page.render` draws it as one HTML file that opens
offline."""
