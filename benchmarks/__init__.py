"""Side by side with the tools that people would pick instead; see docs/performance.md."""
