// A recursion of known depth and order through interpreted and compiled code: down and side call each other, leaf works.
// Argument: seconds.
public class Deep {
    static final int DEPTH = 40;
    static volatile int sink;

    static int leaf(int n) {
        int x = n;
        for (int i = 0; i < 300; i++) x = x * 31 + i;
        sink ^= x;
        return x;
    }

    static void down(int depth) {
        leaf(depth);
        if (depth > 0) side(depth - 1);
    }

    static void side(int depth) {
        leaf(depth);
        if (depth > 0) down(depth - 1);
    }

    public static void main(String[] arguments) {
        long seconds = arguments.length > 0 ? Long.parseLong(arguments[0]) : 3;
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        while (System.nanoTime() < end) down(DEPTH);
    }
}
