module sallyport.dev/e2e/cluster/programs/pause

go 1.26.0

tool sallyport.dev/e2e/cluster/programs/pause
