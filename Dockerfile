# The image of gateway, recorder and operator. `npm run build` writes dist/ first (`make image` does both); where no
# builder runs, e2e/image packs the same files without one.
FROM node:24-bookworm-slim AS node

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY LICENSE dist/sallyport.mjs dist/operator.mj[s] /opt/sallyport/
COPY dist/parts/ /opt/sallyport/parts/
# The last two: memory that was given back does not stay with the process (e2e/image/gateway.ts says why).
ENV NODE_ENV=production HOME=/tmp MALLOC_ARENA_MAX=2 MALLOC_TRIM_THRESHOLD_=131072
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/node", "/opt/sallyport/sallyport.mjs"]
CMD ["gateway"]
