-- Green threads over two system threads, MVars, timers, pipes to child processes, laziness and its garbage.
module Main (main) where

import Control.Concurrent
import Control.Monad
import qualified Data.Map.Strict as Map
import System.Environment
import System.Exit
import System.IO
import System.Process

primes :: [Int]
primes = sieve [2 ..] where sieve (p : xs) = p : sieve [x | x <- xs, x `mod` p /= 0]

main :: IO ()
main = do
  [rounds] <- map read <$> getArgs
  hSetBuffering stdout LineBuffering
  ticks <- newMVar (0 :: Int)
  _ <- forkIO . forever $ threadDelay 10000 >> modifyMVar_ ticks (pure . (+ 1))
  jobs <- newChan
  results <- newChan
  forM_ [1 .. 4 :: Int] $ \_ -> forkIO . forever $ do
    n <- readChan jobs
    let m = foldr (\x -> Map.insertWith (+) (x * n `mod` 997) x) Map.empty [1 .. 20000 :: Int]
    Map.foldl' (+) 0 m `seq` writeChan results (n, Map.size m, Map.foldl' (+) 0 m)
  (Just input, Just output, _, cat) <- createProcess (proc "cat" []) {std_in = CreatePipe, std_out = CreatePipe}
  hSetBuffering input LineBuffering
  forM_ [1 .. rounds] $ \step -> do
    forM_ [1 .. 6] $ \i -> writeChan jobs (step * 6 + i)
    answers <- replicateM 6 (readChan results)
    hPutStrLn input ("line " ++ show step)
    line <- hGetLine output
    (code, said, _) <- readProcessWithExitCode "sh" ["-c", "cat; exit 3"] ("text " ++ show step)
    threadDelay 20000
    putStrLn $ unwords [show step, show (sum [a + b + c | (a, b, c) <- answers]), line, said, show code, show (primes !! (step * 3))]
  hClose input
  end <- waitForProcess cat
  n <- readMVar ticks
  print (end == ExitSuccess, n > rounds)
