# The image of gateway, recorder and operator. `npm run build` writes dist/ first (`make image` does both); where no
# builder runs, e2e/image packs the same files without one.
FROM node:24-bookworm-slim AS node

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY LICENSE dist/sallyport.mjs dist/operator.mj[s] /opt/sallyport/
COPY dist/parts/ /opt/sallyport/parts/
ENV NODE_ENV=production HOME=/tmp
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/node", "/opt/sallyport/sallyport.mjs"]
CMD ["gateway"]
