// The host functions that the plugin imports: functions of the application, which
// Host.getFunctions() returns. A PTR is text or bytes in the host's memory.
declare module "extism:host" {
  interface user {
    // lookup(name: PTR): PTR;
  }
}
