import type { Server } from "node:http";
import { recorderFor, serveAdmin } from "@sallyport/control";
import { Gauge, Histogram, type Registry } from "prom-client";
import { CertificateStore } from "./certificates/index.ts";
import type { OperatorConfiguration } from "./configuration.ts";
import { BundleStore, ControlServer, GatewayAuthenticator, keepRecorderHeads } from "./control/index.ts";
import {
  ApprovalDesk,
  Bundler,
  ClusterAddresses,
  certificateSigner,
  gatewayProof,
  PeerDesk,
  ReportExchange,
  reportsLabel,
  SessionWriter,
  WindowDesk,
} from "./gateways/index.ts";
import { keepBindings } from "./impersonation/index.ts";
import {
  eventRecorder,
  type KubeClient,
  type KubeMetrics,
  LeaderElection,
  type Log,
  leaseIdentity,
  Reflector,
  refOf,
  type UntypedObject,
} from "./kube/index.ts";
import { ApprovalNotifier } from "./notify/index.ts";
import { ExecProber, Prober } from "./probe/index.ts";
import { ApprovalAdmission, controllers, kinds, PolicyBook, watches } from "./resources/index.ts";
import {
  connectReview,
  podInjection,
  policyReview,
  WebhookCertificate,
  WebhookServer,
} from "./webhook/index.ts";

/** What an operator process is made of. */
export interface OperatorParts {
  readonly client: KubeClient;
  readonly configuration: OperatorConfiguration;
  readonly registry: Registry;
  readonly metrics: KubeMetrics;
  readonly log: Log;
}

/** One replica: serves admission and the control stream from the start, and reconciles while it leads. */
export class Operator {
  readonly #parts: OperatorParts;
  readonly #certificates: CertificateStore;
  readonly #webhook: WebhookServer;
  readonly #certificate: WebhookCertificate;
  readonly #watches: ReturnType<typeof watches>;
  readonly #book: PolicyBook;
  readonly #election: LeaderElection;
  readonly #events: ReturnType<typeof eventRecorder>;
  readonly #controllers: ReturnType<typeof controllers>;
  readonly #bundler: Bundler;
  readonly #addresses: ClusterAddresses;
  readonly #control: ControlServer;
  readonly #sessions: SessionWriter;
  readonly #admission: ApprovalAdmission;
  readonly #windows: WindowDesk;
  readonly #peers: PeerDesk;
  readonly #notifier: ApprovalNotifier | undefined;
  readonly #prober: Prober;
  readonly #execProber: ExecProber;
  readonly #exchange: ReportExchange;
  readonly #exchanged: Reflector<UntypedObject>;
  /** Ends with the process: what serves outlives the loops, so that what is in work can be finished. */
  readonly #over = new AbortController();
  #admin: Server | undefined;
  #isControlled = false;

  constructor(parts: OperatorParts) {
    this.#parts = parts;
    const { client, configuration, registry, metrics, log } = parts;
    const { namespace, podName, prefix, settings, breakGlassGroup, clusterDomain } = configuration;
    const named = (service: string) => {
      const base = `${prefix}-${service}`;
      const inside = `${base}.${namespace}.svc`;
      return [inside, base, `${base}.${namespace}`, `${inside}.${clusterDomain}`];
    };
    this.#certificates = new CertificateStore({
      client,
      namespace,
      prefix,
      names: {
        operator: [...named("webhook"), ...named("control")],
        recorder: [...named("recorder"), `*.${prefix}-recorder.${namespace}.svc`],
      },
      log,
      clock: Date.now,
    });
    const { watchNamespaces } = configuration;
    this.#watches = watches({
      client,
      log,
      metrics,
      namespaces: watchNamespaces,
      systemNamespace: namespace,
    });
    const { caches } = this.#watches;
    this.#book = new PolicyBook(caches);
    this.#events = eventRecorder({
      client,
      reportingController: "sallyport.dev/operator",
      reportingInstance: podName,
      log,
    });
    const identity = leaseIdentity(podName);
    this.#election = new LeaderElection({
      client,
      namespace,
      name: `${prefix}-operator`,
      identity,
      log,
      metrics,
    });
    const seconds = new Histogram({
      name: "sallyport_webhook_seconds",
      help: "How long admission took, by path and result.",
      labelNames: ["path", "result"],
      buckets: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 4],
      registers: [registry],
    });
    const events = this.#events;
    this.#webhook = new WebhookServer({
      host: "0.0.0.0",
      port: configuration.webhookPort,
      log,
      handlers: {
        "/pods": this.#whenSynced(podInjection({ caches, settings, events })),
        "/connect": this.#whenSynced(connectReview({ client, caches, breakGlassGroup, book: this.#book })),
        "/policies": this.#whenSynced(policyReview(caches)),
      },
      onAnswer: (path, result, took) => seconds.observe({ path, result }, took),
    });
    const { webhookCertificates, webhookCertificateFolder: folder } = configuration;
    this.#certificate = new WebhookCertificate({
      ...{ client, server: this.#webhook, certificates: this.#certificates, name: prefix, log },
      from: webhookCertificates === "own" ? { kind: "own" } : { kind: "cert-manager", folder },
    });
    const bundles = new BundleStore();
    this.#addresses = new ClusterAddresses({
      ...{ client, caches, log, clusterDomain, configured: configuration.clusterRanges },
      onChange: () => this.#bundler.everything(),
    });
    this.#bundler = new Bundler({
      ...{ caches, book: this.#book, bundles },
      reach: (resource) => this.#addresses.reachOf(resource),
    });
    this.#sessions = new SessionWriter({
      client,
      caches,
      events,
      log,
      signal: this.#over.signal,
      clock: () => new Date(),
      ttlAfterFinished: configuration.sessionTtl,
      noted: (resource, session) => this.#control.noted(resource, session),
      deleted: (resource, session) => this.#control.endSession(resource, session, "the session was deleted"),
    });
    const guarded = new Gauge({
      name: "sallyport_approvals_guarded",
      help: "1 while the API server checks who decides about Approvals; nothing is approved while it is 0.",
      registers: [registry],
    });
    this.#admission = new ApprovalAdmission({
      client,
      namespace,
      log,
      onChange: (isInForce) => {
        guarded.set(isInForce ? 1 : 0);
        this.#controllers.everyResource();
        this.#controllers.everyApproval();
      },
    });
    this.#windows = new WindowDesk({
      caches,
      book: this.#book,
      tell: (resource, open) => this.#control.tell({ kind: "windows", windows: open }, resource),
      clock: () => new Date(),
    });
    const isGateway = gatewayProof(caches, settings);
    this.#peers = new PeerDesk({
      ...{ caches, isGateway, authorities: () => this.#certificates.held?.gatewayCa },
      tell: (resource, message) => this.#control.tell(message, resource),
    });
    const { notifications } = configuration;
    this.#notifier =
      notifications &&
      new ApprovalNotifier({
        ...{ approvals: caches.approvals, registry, log, clock: Date.now },
        ...notifications,
      });
    const desk = new ApprovalDesk({
      client,
      caches,
      isGuarded: (signal) => this.#admission.check(signal),
      log,
      signal: this.#over.signal,
      clock: () => new Date(),
    });
    this.#control = new ControlServer({
      host: "0.0.0.0",
      port: configuration.controlPort,
      certificate: () => this.#serving(),
      authenticator: new GatewayAuthenticator({ client, isGateway }),
      bundles,
      // A replica whose watches are dead must not tell gateways that their policy is of today.
      isCurrent: () => this.#watches.silentMs < watchSilenceMs,
      recorderOf: (each) => recorderFor(each, configuration.recorders),
      signCertificate: certificateSigner(this.#certificates, caches, clusterDomain),
      events: {
        sessions: (resource, reports) => this.#sessions.take(resource, reports),
        joined: (resource, stream) => {
          this.#windows.joined(resource, stream);
          this.#peers.joined(resource, stream);
          desk.joined(resource, stream);
        },
        asked: (resource, ask, stream) => desk.asked(resource, ask, stream),
        withdrawn: (resource, id) => desk.ended(resource, id, "Cancelled"),
        used: (resource, id) => desk.ended(resource, id, "Used"),
        changed: (resource) => {
          this.#exchange.note(resource);
          this.#controllers.gatewayReported(refOf(resource));
        },
      },
      log,
    });
    this.#exchanged = new Reflector({
      client,
      type: kinds.configMap,
      selection: { namespace, labelSelector: reportsLabel },
      log,
      metrics,
    });
    this.#exchange = new ReportExchange({
      client,
      namespace,
      podName,
      prefix,
      own: this.#control,
      others: this.#exchanged,
      onChange: (resource) => this.#controllers.gatewayReported(resource),
      log,
    });
    // Deleting a live session's object ends its connection, on whichever replica the gateway is connected to.
    caches.sessions.onChange(({ kind, object }) => {
      if (kind !== "removed" || object.status?.state === "Ended") return;
      const { resource, sessionId } = object.spec;
      this.#control.endSession(
        `${object.metadata.namespace}/${resource}`,
        sessionId,
        "the session was deleted",
      );
    });
    caches.pods.onChange(({ object }) => {
      void this.#control
        .recheck(object.metadata.uid ?? "")
        .catch((error: unknown) => log.warn({ err: error }, "a gateway could not be checked again"));
    });
    this.#prober = new Prober({
      ...{ client, caches, settings, log },
      floored: (resource) => this.#book.floored(resource),
      podName: `${prefix}-probe`,
      operatorPod: podName,
      onChange: (resource) => this.#controllers.gatewayReported(resource),
    });
    this.#execProber = new ExecProber({
      ...{ client, caches, log, againAfterMs: configuration.execProbeMs },
      onChange: () => this.#controllers.everyOwnCluster(),
    });
    this.#controllers = controllers({
      client,
      caches,
      book: this.#book,
      reports: this.#exchange,
      events,
      settings,
      controlCa: () => this.#certificates.held?.serverCa,
      probe: (resource) => this.#prober.of(resource),
      execFindings: () => this.#execProber.findings,
      approvalAdmission: this.#admission,
      approvalRetentionMs: configuration.approvalRetentionMs,
      log,
      metrics,
    });
  }

  /** Where admission listens. */
  get webhookPort(): number {
    return this.#webhook.port;
  }

  get isLeader(): boolean {
    return this.#election.isLeader;
  }

  /** Undefined while ready; else what is waited for. Readiness is for traffic: it needs no lease. */
  notReady(): string | undefined {
    if (!this.#watches.isSynced) return "the lists are not complete yet";
    if (!this.#isControlled || !this.#webhook.isServing) return "there is no certificate yet";
    if (!this.#certificate.isTrusted)
      return "the webhooks' caBundle does not hold the certificate's authority yet";
    return undefined;
  }

  /** Runs until the signal, then drains; throws where the lease was lost, for the process to end. */
  async run(signal: AbortSignal): Promise<void> {
    const { configuration, registry, log } = this.#parts;
    // Alive is who answers: an API server that is away must not have us restarted.
    this.#admin = await serveAdmin({
      ...{ host: configuration.adminHost, port: configuration.adminPort },
      metrics: async () => ({ text: await registry.metrics(), type: registry.contentType }),
      notReady: () => this.notReady(),
    });
    const inner = this.#over;
    this.#certificates.onChange(() => {
      this.#controllers.everyResource();
      this.#peers.everything();
      void this.#takeCertificate().catch((error: unknown) =>
        log.error({ err: error }, "a certificate could not be used"),
      );
    });
    const background = Promise.all([
      this.#watches.run(inner.signal),
      this.#certificates.run(inner.signal),
      this.#events.run(inner.signal),
      this.#handOut(inner.signal),
      this.#exchanged.run(inner.signal),
      this.#exchange.run(inner.signal),
      this.#certificate.run(inner.signal),
      this.#admission.run(inner.signal),
    ]);
    try {
      await this.#election.run(signal, (leading) => this.#lead(leading));
    } finally {
      this.#control.stop();
      this.#windows.close();
      this.#peers.close();
      await this.#webhook.close();
      inner.abort(new Error("the operator ends"));
      await background;
      this.#admin?.close();
      this.#admin?.closeAllConnections();
      log.info({ namespace: configuration.namespace }, "the operator has stopped");
    }
  }

  async #lead(signal: AbortSignal): Promise<void> {
    const { client, configuration, log } = this.#parts;
    const reconcile = async () => {
      try {
        await this.#watches.whenSynced(signal);
      } catch (error) {
        if (signal.aborted) return;
        throw error;
      }
      const { settings } = configuration;
      const bindings = keepBindings({ client, caches: this.#watches.caches, settings, log, signal });
      await Promise.all([
        this.#controllers.run(signal),
        this.#prober.run(signal),
        this.#execProber.run(signal),
        bindings,
        this.#notifier?.run(signal),
      ]);
    };
    const heads = keepRecorderHeads({
      ...{ client, log, signal, recorders: configuration.recorders, namespace: configuration.namespace },
      name: `${configuration.prefix}-recorder-heads`,
      events: this.#events,
      authorities: () => this.#certificates.held?.serverCa,
    });
    await Promise.all([
      this.#certificates.keep(signal),
      this.#certificate.keepBundles(signal),
      reconcile(),
      heads,
    ]);
  }

  /** No bundle leaves before every list behind it is complete. */
  async #handOut(signal: AbortSignal): Promise<void> {
    try {
      await this.#watches.whenSynced(signal);
      await this.#addresses.look(signal);
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    this.#bundler.complete();
    this.#peers.complete();
    await this.#addresses.run(signal);
  }

  #serving() {
    const held = this.#certificates.held;
    if (held === undefined) throw new Error("there is no certificate yet");
    return held.serving;
  }

  async #takeCertificate(): Promise<void> {
    const held = this.#certificates.held;
    if (held !== undefined && !this.#isControlled) {
      this.#isControlled = true;
      await this.#control.start();
    }
    await this.#certificate.take();
  }

  /** Before the lists are complete nobody can say who is selected: the API server does what failurePolicy says. */
  #whenSynced<Q, A>(answer: (question: Q) => A): (question: Q) => A {
    return (question) => {
      if (!this.#watches.isSynced) throw new Error("the lists are not complete yet");
      return answer(question);
    };
  }
}

/** Watches hear a bookmark about once a minute; one that hears nothing for 90 s is opened again. */
const watchSilenceMs = 240_000;
