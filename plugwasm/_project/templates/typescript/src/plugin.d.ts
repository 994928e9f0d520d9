// The host functions that the plugin imports. They are called with Host.getFunctions().
declare module "extism:host" {
  interface user {
    // lookup(name: PTR): PTR;
  }
}
