/// <reference types="vite/client" />
declare module '*.vue' {
  import type { DefineComponent } from 'vue'
  const component: DefineComponent<object, object, unknown>
  export default component
}
declare const __BANYAN_SERVER__: string
/** WeChat's runtime, in a mini-program only; transport/platform.ts is the one place that knows it. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
declare const wx: any
