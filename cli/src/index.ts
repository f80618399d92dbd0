/** The `sallyport` command line. */
export {};
